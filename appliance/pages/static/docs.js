// The API reference: Swagger UI over this server's own document.
"use strict";

// Swagger UI has its own dark theme, by a class of the page.
const dark = matchMedia("(prefers-color-scheme: dark)");
const follow = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", follow);
follow();

// A key is not shown: neither where it is typed nor in the command that does the same.
const KEY_SHOWN = "Bearer gr-…";
const masked = (request) =>
  request && request.hasIn(["headers", "Authorization"]) ? request.setIn(["headers", "Authorization"], KEY_SHOWN) : request;

const nothing = () => null;
const ours = (system) => ({
  wrapComponents: {
    curl: (Original) => (props) => system.React.createElement(Original, { ...props, request: masked(props.request) }),
    InfoContainer: () => nothing, // this page has a heading and says what the API is
    ServersContainer: () => nothing, // there is one server: this one
  },
});

// What Swagger UI draws has fields without names, and boxes that scroll and cannot be reached by
// keyboard: both are mended as they appear.
const reference = document.getElementById("reference");

function nameOf(field) {
  const row = field.closest("tr");
  const name = row && row.querySelector(".parameter__name");
  if (name) return name.firstChild.textContent.trim();
  return field.closest(".opblock-section-request-body") ? "Request body" : "Value";
}

function mend() {
  for (const field of reference.querySelectorAll("select, textarea, input")) {
    if (!field.labels?.length && !field.hasAttribute("aria-label")) field.setAttribute("aria-label", nameOf(field));
  }
  for (const field of reference.querySelectorAll(".auth-container input[type=text]")) {
    field.type = "password";
    field.autocomplete = "off";
  }
  for (const box of reference.querySelectorAll("pre:not([tabindex])")) box.tabIndex = 0;
}

// The dialog for the key comes last in the page, behind everything that can be reached by keyboard.
let dialog = null;

function followDialog() {
  const field = reference.querySelector(".dialog-ux input");
  if (field && field !== dialog) field.focus();
  if (!field && dialog && document.activeElement === document.body) reference.querySelector(".btn.authorize")?.focus();
  dialog = field;
}

let isDue = false;
new MutationObserver(() => {
  if (isDue) return;
  isDue = true;
  requestAnimationFrame(() => { isDue = false; mend(); followDialog(); });
}).observe(reference, { childList: true, subtree: true });

SwaggerUIBundle({
  url: reference.dataset.document,
  dom_id: "#reference",
  plugins: [ours],
  validatorUrl: null, // no other host is asked about the document
  persistAuthorization: false, // a key stays in memory
  deepLinking: false, // its links would lie inside of buttons
  docExpansion: "list",
  defaultModelsExpandDepth: -1,
  tryItOutEnabled: true,
  displayRequestDuration: true,
  syntaxHighlight: { activated: false }, // its colours are too faint, and thousands of numbers slow
});
