// Loaded into the real llama-server by LD_PRELOAD, this tells in bytes what the server's allocation dry run found, which
// its own log rounds to MiB, and ends the process there: a server that is asked so never gets to allocate.
//
// One line a buffer type: "dry run", buffer type, device, and the bytes of weights, KV cache and compute; by tabs.

#include <cstddef>
#include <cstdio>
#include <dlfcn.h>
#include <map>
#include <unistd.h>

struct common_log;
struct llama_context;

struct buffer_bytes {
    size_t model, context, compute;
};

using breakdown = std::map<void *, buffer_bytes>;

extern "C" {
const char * ggml_backend_buft_name(void * buffer_type);
const char * ggml_backend_dev_name(void * device);
void * ggml_backend_buft_get_device(void * buffer_type);
}

common_log * common_log_main();
void common_log_pause(common_log * log);

breakdown llama_get_memory_breakdown(const llama_context * context) {
    using function = breakdown (*)(const llama_context *);
    const auto upstreams =
        reinterpret_cast<function>(dlsym(RTLD_NEXT, "_Z26llama_get_memory_breakdownPK13llama_context"));
    if (!upstreams) {
        _exit(1);
    }
    common_log_pause(common_log_main()); // the log is written by a thread of its own: wait until all of it is out
    for (const auto & [buffer_type, bytes] : upstreams(context)) {
        void * device = ggml_backend_buft_get_device(buffer_type);
        printf("dry run\t%s\t%s\t%zu\t%zu\t%zu\n", ggml_backend_buft_name(buffer_type),
            device ? ggml_backend_dev_name(device) : "", bytes.model, bytes.context, bytes.compute);
    }
    fflush(stdout);
    _exit(0);
}
