/*
 * rpc_link.cpp - the connections of ggml's RPC backend, in place of its own transport.cpp: the backend is compiled as it is,
 * from the release's source, and linked with this.
 *
 * With its own transport the backend ends the process where a server is not there, is of another version, or vanishes, on a
 * thread of its own where nobody could stop it. Here a connection that is lost is noted, with why, and from then on requests
 * are answered in the server's place: with zeros of the right size, a buffer that was not allocated, or what keeps the
 * backend going. Whoever computes asks rpc_link_of before a result counts.
 *
 *     backend ---> cmd | size | request ---> send_data x 3, flush
 *             <--- size | answer        <--- recv_data x 2          for commands that have an answer
 *
 * What always holds: a connection is noted as lost before the first invented answer is handed over; one that is lost stays
 * so. A new connection to the same server begins anew: the backend makes one when nothing of the last one is held.
 *
 * A connection and what it sends belong to one thread at a time, the backend's; the table of links has a lock.
 */
#include "hw/rpc_link.h"

#include "transport.h"

#include "ggml-rpc.h"

#include <algorithm>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

static_assert(RPC_PROTO_MAJOR_VERSION == 7, "look at the commands below: the protocol has changed");

namespace
{

constexpr int CONNECT_MS = 5000;
constexpr int HELLO_S = 10;  /* a server that serves somebody else accepts, and answers when that one has gone */
constexpr int SILENT_S = 20; /* without a sign of the other machine: it is gone */

/* Commands of the protocol, and how many bytes their answers have. */
enum command : uint8_t {
    ALLOC_BUFFER = 0,
    GET_ALIGNMENT,
    GET_MAX_SIZE,
    BUFFER_GET_BASE,
    FREE_BUFFER,
    BUFFER_CLEAR,
    SET_TENSOR,
    SET_TENSOR_HASH,
    GET_TENSOR,
    COPY_TENSOR,
    GRAPH_COMPUTE,
    GET_DEVICE_MEMORY,
    INIT_TENSOR,
    GET_ALLOC_SIZE,
    HELLO,
    DEVICE_COUNT,
};

uint64_t answer_bytes_of(uint8_t command)
{
    switch (command) {
    case ALLOC_BUFFER:
    case GET_DEVICE_MEMORY:
        return 16;
    case GET_ALIGNMENT:
    case GET_MAX_SIZE:
    case BUFFER_GET_BASE:
    case GET_ALLOC_SIZE:
        return 8;
    case SET_TENSOR_HASH:
    case COPY_TENSOR:
        return 1;
    case HELLO:
        return 4 + RPC_CONN_CAPS_SIZE;
    case DEVICE_COUNT:
        return 4;
    default:
        return 0;
    }
}

/* What the backend goes on with: nothing is there, and nothing is done. */
void invent(uint8_t command, void *answer, size_t bytes)
{
    static const uint8_t version[] = {RPC_PROTO_MAJOR_VERSION, RPC_PROTO_MINOR_VERSION, RPC_PROTO_PATCH_VERSION};
    const uint64_t aligned = 4096; /* of any device; nobody looks at that address */
    const uint64_t any = UINT64_MAX;
    memset(answer, 0, bytes);
    switch (command) {
    case HELLO:
        memcpy(answer, version, sizeof version);
        break;
    case GET_ALIGNMENT:
    case BUFFER_GET_BASE:
        memcpy(answer, &aligned, sizeof aligned);
        break;
    case GET_MAX_SIZE:
        memcpy(answer, &any, sizeof any);
        break;
    case SET_TENSOR_HASH:
    case COPY_TENSOR:
        memset(answer, 1, 1);
        break;
    default:
        break;
    }
}

std::mutex lock;
std::map<std::string, rpc_link> links; /* by endpoint; never removed, so that references stay */
rpc_link_lost_fn told;
int listen_errno;

rpc_link *link_of(const std::string &endpoint)
{
    const std::lock_guard<std::mutex> guard(lock);
    return &links.emplace(endpoint, rpc_link{}).first->second;
}

void keep_awake(int fd)
{
    const int on = 1;
    const int idle_s = SILENT_S / 2;
    const int between_s = SILENT_S / 4;
    const int n = 2;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &between_s, sizeof between_s);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &n, sizeof n);
#ifdef __APPLE__
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPALIVE, &idle_s, sizeof idle_s);
    (void)setsockopt(fd, SOL_SOCKET, SO_NOSIGPIPE, &on, sizeof on);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_RXT_CONNDROPTIME, &SILENT_S, sizeof SILENT_S);
#else
    const unsigned silent_ms = SILENT_S * 1000;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof idle_s);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &silent_ms, sizeof silent_ms);
#endif
}

void answer_within(int fd, int seconds)
{
    const struct timeval limit = {seconds, 0};
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
}

#ifdef MSG_NOSIGNAL
constexpr int NO_SIGNAL = MSG_NOSIGNAL;
#else
constexpr int NO_SIGNAL = 0;
#endif

/* 0, or errno. */
int put(int fd, const void *data, size_t size)
{
    const char *at = static_cast<const char *>(data);
    while (size > 0) {
        const ssize_t n = send(fd, at, std::min(size, MAX_CHUNK_SIZE), NO_SIGNAL);
        if (n < 0 && errno != EINTR) {
            return errno;
        }
        at += n > 0 ? n : 0;
        size -= n > 0 ? static_cast<size_t>(n) : 0;
    }
    return 0;
}

constexpr int CLOSED = -1;

/* 0, errno, or CLOSED by the other side. */
int get(int fd, void *data, size_t size)
{
    char *at = static_cast<char *>(data);
    while (size > 0) {
        const ssize_t n = recv(fd, at, std::min(size, MAX_CHUNK_SIZE), 0);
        if (n == 0) {
            return CLOSED;
        }
        if (n < 0 && errno != EINTR) {
            return errno;
        }
        at += n > 0 ? n : 0;
        size -= n > 0 ? static_cast<size_t>(n) : 0;
    }
    return 0;
}

/* Within CONNECT_MS. 0, or errno. */
int connect_in_time(int fd, const struct sockaddr *address, socklen_t bytes)
{
    const int flags = fcntl(fd, F_GETFL);
    (void)fcntl(fd, F_SETFL, flags | O_NONBLOCK);
    int code = connect(fd, address, bytes) == 0 ? 0 : errno;
    if (code == EINPROGRESS) {
        struct pollfd ready = {fd, POLLOUT, 0};
        socklen_t size = sizeof code;
        const int n = poll(&ready, 1, CONNECT_MS);
        if (n <= 0 || getsockopt(fd, SOL_SOCKET, SO_ERROR, &code, &size) != 0) {
            code = n == 0 ? ETIMEDOUT : errno;
        }
    }
    (void)fcntl(fd, F_SETFL, flags);
    return code;
}

} // namespace

struct socket_t::impl {
    int fd = -1;
    /* of a client */
    std::string endpoint;
    rpc_link   *link = nullptr; /* NULL: the server's side */
    bool        lost = false;
    int         n_sent = 0; /* of the three parts of a request */
    uint8_t     command = 0;
    uint64_t    answer_bytes = 0;
    bool        answers = false; /* its size was received */

    ~impl()
    {
        if (fd >= 0) {
            (void)close(fd);
        }
    }

    __attribute__((format(printf, 2, 3))) void lose(const char *format, ...)
    {
        rpc_link_lost_fn tell;
        char reason[sizeof link->reason];
        va_list arguments;
        va_start(arguments, format);
        (void)vsnprintf(reason, sizeof reason, format, arguments);
        va_end(arguments);
        lost = true;
        if (fd >= 0) {
            (void)shutdown(fd, SHUT_RDWR);
        }
        {
            const std::lock_guard<std::mutex> guard(lock);
            link->lost = true;
            memcpy(link->reason, reason, sizeof reason);
            tell = told;
        }
        if (tell) {
            tell(endpoint.c_str(), reason);
        }
    }

    void lose_by(int code)
    {
        if (code == CLOSED && command == HELLO) {
            lose("it closed the connection at once, as a server of another version of llama.cpp does, or none of its RPC");
        } else if (code == CLOSED) {
            lose("it closed the connection");
        } else if (command == HELLO && (code == EAGAIN || code == EWOULDBLOCK)) {
            lose("it does not answer within %d s: it takes one client at a time, and may have another one", HELLO_S);
        } else {
            lose("%s", strerror(code));
        }
    }

    void count(uint64_t sent_bytes, uint64_t received_bytes, uint64_t n_answers)
    {
        const std::lock_guard<std::mutex> guard(lock);
        link->sent_bytes += sent_bytes;
        link->received_bytes += received_bytes;
        link->n_answers += n_answers;
    }

    void connect_to(const char *host, int port)
    {
        struct addrinfo hints = {};
        struct addrinfo *found = nullptr;
        hints.ai_socktype = SOCK_STREAM;
        const int unknown = getaddrinfo(host, std::to_string(port).c_str(), &hints, &found);
        if (unknown != 0) {
            lose("%s", gai_strerror(unknown));
            return;
        }
        int code = ENOENT;
        for (const struct addrinfo *a = found; a && code != 0; a = a->ai_next) {
            fd = socket(a->ai_family, a->ai_socktype, a->ai_protocol);
            code = fd < 0 ? errno : connect_in_time(fd, a->ai_addr, a->ai_addrlen);
            if (code != 0 && fd >= 0) {
                (void)close(fd);
                fd = -1;
            }
        }
        freeaddrinfo(found);
        if (code != 0) {
            lose("%s", strerror(code));
            return;
        }
        keep_awake(fd);
        answer_within(fd, HELLO_S);
    }

    /* Of the backend's three calls for each request. */
    void follow(const void *data, size_t size)
    {
        if (n_sent == 0) {
            memcpy(&command, data, sizeof command);
        } else if (n_sent == 2) {
            answer_bytes = answer_bytes_of(command);
            if (command == GET_TENSOR && size >= sizeof answer_bytes) { /* its last field says how many */
                memcpy(&answer_bytes, static_cast<const char *>(data) + size - sizeof answer_bytes, sizeof answer_bytes);
            }
        }
        n_sent = (n_sent + 1) % 3;
    }

    void receive_size(void *data)
    {
        uint64_t size = answer_bytes;
        const int code = lost ? 0 : get(fd, &size, sizeof size);
        if (code != 0) {
            lose_by(code);
        } else if (size != answer_bytes) {
            lose("it answers with %llu bytes where llama.cpp's server of this version answers with %llu",
                 static_cast<unsigned long long>(size), static_cast<unsigned long long>(answer_bytes));
        }
        memcpy(data, &answer_bytes, sizeof answer_bytes);
    }

    void check_version(const uint8_t *version)
    {
        if (version[0] != RPC_PROTO_MAJOR_VERSION || version[1] > RPC_PROTO_MINOR_VERSION) {
            lose("its RPC is version %d.%d.%d, this one's %d.%d.%d: run the same release of Hypura, or of llama.cpp, on both "
                 "machines", version[0], version[1], version[2], RPC_PROTO_MAJOR_VERSION, RPC_PROTO_MINOR_VERSION,
                 RPC_PROTO_PATCH_VERSION);
        } else {
            answer_within(fd, 0);
        }
    }

    void receive_answer(void *data, size_t size)
    {
        const int code = lost ? 0 : get(fd, data, size);
        if (code != 0) {
            lose_by(code);
        } else if (!lost) {
            count(0, size + sizeof(uint64_t), 1);
            if (command == HELLO && size >= 3) {
                check_version(static_cast<const uint8_t *>(data));
            }
        }
        if (lost) {
            invent(command, data, size);
        }
    }
};

socket_t::socket_t(std::unique_ptr<impl> p) : pimpl(std::move(p)) {}

socket_t::~socket_t() = default;

bool socket_t::send_data(const void *data, size_t size)
{
    if (!pimpl->link) {
        return put(pimpl->fd, data, size) == 0;
    }
    pimpl->follow(data, size);
    const int code = pimpl->lost ? 0 : put(pimpl->fd, data, size);
    if (code != 0) {
        pimpl->lose_by(code == EPIPE ? CLOSED : code);
    } else if (!pimpl->lost) {
        pimpl->count(size, 0, 0);
    }
    return true;
}

bool socket_t::recv_data(void *data, size_t size)
{
    if (!pimpl->link) {
        return get(pimpl->fd, data, size) == 0;
    }
    if (!pimpl->answers) {
        pimpl->receive_size(data);
    } else {
        pimpl->receive_answer(data, size);
    }
    pimpl->answers = !pimpl->answers;
    return true;
}

bool socket_t::flush()
{
    return true;
}

/* No transport but TCP. */
void socket_t::get_caps(uint8_t *local_caps)
{
    memset(local_caps, 0, RPC_CONN_CAPS_SIZE);
}

void socket_t::update_caps(const uint8_t *)
{
}

socket_ptr socket_t::connect(const char *host, int port)
{
    auto own = std::make_unique<impl>();
    own->endpoint = std::string(host) + ":" + std::to_string(port);
    own->link = link_of(own->endpoint);
    {
        const std::lock_guard<std::mutex> guard(lock);
        own->link->lost = false;
        own->link->reason[0] = '\0';
    }
    own->command = HELLO;
    own->connect_to(host, port);
    return socket_ptr(new socket_t(std::move(own)));
}

socket_ptr socket_t::create_server(const char *host, int port)
{
    struct addrinfo hints = {};
    struct addrinfo *found = nullptr;
    const int on = 1;
    auto own = std::make_unique<impl>();
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = AI_PASSIVE;
    if (getaddrinfo(host, std::to_string(port).c_str(), &hints, &found) != 0) {
        listen_errno = EADDRNOTAVAIL;
        return nullptr;
    }
    own->fd = socket(found->ai_family, found->ai_socktype, found->ai_protocol);
    const bool listens = own->fd >= 0 && setsockopt(own->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 &&
                         bind(own->fd, found->ai_addr, found->ai_addrlen) == 0 && listen(own->fd, 1) == 0;
    listen_errno = listens ? 0 : errno;
    freeaddrinfo(found);
    return listens ? socket_ptr(new socket_t(std::move(own))) : nullptr;
}

socket_ptr socket_t::accept()
{
    auto own = std::make_unique<impl>();
    do {
        own->fd = ::accept(pimpl->fd, nullptr, nullptr);
    } while (own->fd < 0 && (errno == EINTR || errno == ECONNABORTED));
    if (own->fd < 0) {
        return nullptr;
    }
    keep_awake(own->fd);
    return socket_ptr(new socket_t(std::move(own)));
}

bool rpc_transport_init()
{
    return true;
}

void rpc_transport_shutdown()
{
}

void rpc_link_of(const char *endpoint, rpc_link *link)
{
    const std::lock_guard<std::mutex> guard(lock);
    const auto found = links.find(endpoint);
    *link = found == links.end() ? rpc_link{} : found->second;
}

void rpc_link_on_lost(rpc_link_lost_fn fn)
{
    const std::lock_guard<std::mutex> guard(lock);
    told = fn;
}

int rpc_link_listen_errno(void)
{
    return listen_errno;
}
