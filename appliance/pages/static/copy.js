// Buttons that copy an example. Browsers let a page copy only over TLS or on the machine itself;
// elsewhere the buttons stay hidden.
"use strict";
if (navigator.clipboard) {
  for (const button of document.querySelectorAll("button[data-copies]")) {
    const label = button.textContent;
    button.hidden = false;
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(document.getElementById(button.dataset.copies).textContent);
        button.textContent = "Copied";
      } catch {
        button.textContent = "Not copied";
      }
      setTimeout(() => { button.textContent = label; }, 2000);
    });
  }
}
