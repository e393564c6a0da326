// Golden vectors: the pooled vectors of token sequences, one line each, computed by llama.cpp alone.
//
// golden-vectors MODEL.gguf TOKENS.txt: a line of token ids is a sequence. Compiled by kernel_check.py
// for a processor that this machine is not.

#include "llama.h"

#include <cstdio>
#include <fstream>
#include <sstream>
#include <vector>

int main(int count, char** arguments) {
    if (count != 3) return 2;
    llama_log_set([](ggml_log_level, const char*, void*) {}, nullptr);
    llama_backend_init();
    llama_model_params of_model = llama_model_default_params();
    of_model.use_extra_bufts = false;
    llama_model* model = llama_model_load_from_file(arguments[1], of_model);
    if (model == nullptr) return 1;
    llama_context_params of_context = llama_context_default_params();
    of_context.n_ctx = of_context.n_batch = of_context.n_ubatch = 512;
    of_context.embeddings = true;
    of_context.n_threads = of_context.n_threads_batch = 2;
    llama_context* context = llama_init_from_model(model, of_context);
    if (context == nullptr) return 1;
    std::ifstream file(arguments[2]);
    for (std::string line; std::getline(file, line);) {
        std::istringstream words(line);
        std::vector<llama_token> tokens;
        for (llama_token token; words >> token;) tokens.push_back(token);
        if (llama_encode(context, llama_batch_get_one(tokens.data(), static_cast<int>(tokens.size()))) != 0) return 1;
        const float* vector = llama_get_embeddings_seq(context, 0);
        if (vector == nullptr) return 1;
        for (int i = 0; i < llama_model_n_embd(model); i++) std::printf("%.9g ", vector[i]);
        std::printf("\n");
    }
    llama_free(context);
    llama_model_free(model);
}
