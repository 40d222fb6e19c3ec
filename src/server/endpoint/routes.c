/*
 * routes.c - see routes.h.
 */
#include "server/endpoint/routes.h"

#define OPENAI    HTTP_STYLE_OPENAI
#define ANTHROPIC HTTP_STYLE_ANTHROPIC
#define OLLAMA    HTTP_STYLE_OLLAMA

static const http_route routes[] = {
    /* the server itself */
    {"GET", "/", endpoint_root, ROUTE_QUICK | ROUTE_PUBLIC, OPENAI},
    {"GET", "/health", endpoint_health, ROUTE_QUICK | ROUTE_PUBLIC, OPENAI},
    {"GET", "/v1/health", endpoint_health, ROUTE_QUICK | ROUTE_PUBLIC, OPENAI},
    {"GET", "/healthz", endpoint_health, ROUTE_QUICK | ROUTE_PUBLIC, OPENAI},
    {"GET", "/readyz", endpoint_ready, ROUTE_QUICK | ROUTE_PUBLIC, OPENAI},
    {"GET", "/api/hypura/status", endpoint_status, 0, OPENAI},
    {"GET", "/metrics", endpoint_metrics, 0, OPENAI},

    /* Ollama's API */
    {"GET", "/api/version", endpoint_version, ROUTE_QUICK, OLLAMA},
    {"GET", "/api/tags", endpoint_ollama_tags, 0, OLLAMA},
    {"GET", "/api/ps", endpoint_ollama_ps, 0, OLLAMA},
    {"POST", "/api/show", endpoint_ollama_show, 0, OLLAMA},
    {"POST", "/api/copy", endpoint_ollama_copy, 0, OLLAMA},
    {"DELETE", "/api/delete", endpoint_ollama_delete, 0, OLLAMA},
    {"POST", "/api/pull", endpoint_ollama_pull, 0, OLLAMA},
    {"POST", "/api/create", endpoint_ollama_create, 0, OLLAMA},
    {"HEAD", "/api/blobs/*", endpoint_ollama_blob_head, 0, OLLAMA},
    {"POST", "/api/blobs/*", endpoint_ollama_blob, ROUTE_UPLOAD, OLLAMA},
    {"POST", "/api/chat", endpoint_ollama_chat, ROUTE_MODEL, OLLAMA},
    {"POST", "/api/generate", endpoint_ollama_generate, ROUTE_MODEL, OLLAMA},
    {"POST", "/api/embed", endpoint_ollama_embed, ROUTE_MODEL, OLLAMA},
    {"POST", "/api/embeddings", endpoint_ollama_embeddings, ROUTE_MODEL, OLLAMA},

    /* passed through to the model's own server as they are */
    {"GET", "/v1/models", endpoint_models, 0, OPENAI},
    {"GET", "/models", endpoint_models, 0, OPENAI},
    {"GET", "/v1/models/*", endpoint_models, 0, OPENAI},
    {"POST", "/v1/chat/completions", endpoint_pass, ROUTE_MODEL, OPENAI},
    {"POST", "/v1/chat/completions/control", endpoint_pass, ROUTE_MODEL, OPENAI},
    {"POST", "/v1/chat/completions/input_tokens", endpoint_pass, ROUTE_MODEL, OPENAI},
    {"POST", "/chat/completions", endpoint_pass, ROUTE_MODEL, OPENAI},
    {"POST", "/chat/completions/input_tokens", endpoint_pass, ROUTE_MODEL, OPENAI},
    {"POST", "/v1/completions", endpoint_pass, ROUTE_MODEL, OPENAI},
    {"POST", "/completions", endpoint_pass, ROUTE_MODEL, OPENAI},
    {"POST", "/completion", endpoint_pass, ROUTE_MODEL, OPENAI},
    {"POST", "/v1/responses", endpoint_pass, ROUTE_MODEL, OPENAI},
    {"POST", "/v1/responses/input_tokens", endpoint_pass, ROUTE_MODEL, OPENAI},
    {"POST", "/responses", endpoint_pass, ROUTE_MODEL, OPENAI},
    {"POST", "/responses/input_tokens", endpoint_pass, ROUTE_MODEL, OPENAI},
    {"POST", "/v1/embeddings", endpoint_pass, ROUTE_MODEL, OPENAI},
    {"POST", "/embeddings", endpoint_pass, ROUTE_MODEL, OPENAI},
    {"POST", "/embedding", endpoint_pass, ROUTE_MODEL, OPENAI},
    {"POST", "/v1/rerank", endpoint_pass, ROUTE_MODEL, OPENAI},
    {"POST", "/rerank", endpoint_pass, ROUTE_MODEL, OPENAI},
    {"POST", "/reranking", endpoint_pass, ROUTE_MODEL, OPENAI},
    {"POST", "/v1/reranking", endpoint_pass, ROUTE_MODEL, OPENAI},
    {"POST", "/v1/audio/transcriptions", endpoint_pass, ROUTE_MODEL, OPENAI},
    {"POST", "/audio/transcriptions", endpoint_pass, ROUTE_MODEL, OPENAI},
    {"POST", "/v1/systemone", endpoint_pass, ROUTE_MODEL, OPENAI},
    {"POST", "/v1/messages", endpoint_pass, ROUTE_MODEL, ANTHROPIC},
    {"POST", "/v1/messages/count_tokens", endpoint_pass, ROUTE_MODEL, ANTHROPIC},
    {"POST", "/infill", endpoint_pass, ROUTE_MODEL, OPENAI},
    {"POST", "/tokenize", endpoint_pass, ROUTE_MODEL, OPENAI},
    {"POST", "/detokenize", endpoint_pass, ROUTE_MODEL, OPENAI},
    {"POST", "/apply-template", endpoint_pass, ROUTE_MODEL, OPENAI},
    {"GET", "/props", endpoint_pass, ROUTE_MODEL, OPENAI},
    {"GET", "/slots", endpoint_pass, ROUTE_MODEL, OPENAI},
    {"GET", "/lora-adapters", endpoint_adapters, ROUTE_MODEL, OPENAI},
    {"POST", "/lora-adapters", endpoint_adapters_set, ROUTE_MODEL, OPENAI},
};

const http_routes endpoint_routes = {routes, sizeof routes / sizeof *routes};
