"""The peers that tests talk to; all on loopback, all gone when they are left.

Guards around every test (tests/conftest.py, nothing to ask for)::

    no_leaks          threads, sockets, pipes, eventfds, epolls, actors, dispatchers are back within 5 s
    loopback_only     no connect or look-up leaves the machine (names under .invalid may be looked up)
    switch_interval   a test marked `concurrency` runs twice: default interval, and 1e-6 s

Fixtures of the session: ``authority: Authority`` and ``nginx: Nginx`` (marks the test `nginx`; skipped if missing).

tests.waiting: ``eventually(predicate, timeout=30.0) -> the first truthy answer``, else AssertionError.

tests.servers.raw: a scripted server; a handler has a thread for each connection::

    with RawServer(handler | [handler of conn 0, of conn 1, ..., of all further ones],
                   ssl_context=None, host="127.0.0.1" | "::1", port=0, receive_buffer=None) as server: ...
    server.url .host .port .address          server.connections: list[Conn]   server.requests: list[RawRequest]
    server.open (now)  .peak (at any accept) server.faults   server.closing: Event (wait on it, never sleep)
    server.wait_for_connections(n) .wait_for_requests(n) .wait_until(lambda server: ..., timeout=30.0)
    server.refuse()                          # further connects are refused; RawServer(..., port=server.port) comes back
    always(answer), script(*answers)         # handlers; an answer is bytes or a function of the RawRequest

A handler that returns closes its connection. A client that goes away ends it without fault; whatever else it raises
(assertions, BadRequest) is raised by ``__exit__``.

tests.servers.connection, .endpoint: Conn, what a handler is given::

    conn.read_request() -> RawRequest   conn.read_head() + conn.read_body(request)   conn.recv(size) -> bytes
    conn.send(data)   conn.send_slowly(data, size=1, delay=0.0)
    conn.wait_closed(timeout=30.0) -> bool   conn.hold()           # until the client closes; reads nothing
    conn.close()  FIN, after close_notify    conn.shutdown_write() the same, and reads on
    conn.cut()    FIN without close_notify   conn.reset()          RST     (these two from any thread)
    conn.start_tls(context) -> bool   conn.alpn   conn.server_name   conn.handshake_error
    conn.number .requests .received (bytes) .accepted_at .peer_closed_at .closed_at (monotonic) .is_open()

tests.servers.wire::

    RawRequest: method, target, version, headers [(name, value)], head, body, trailers, connection, at; header(name)
    respond(body=b"", status=200, headers=(), *, reason=None, version="HTTP/1.1") -> bytes
    chunked(body, size=1024, trailers=()) -> bytes     # for respond(chunked(...), headers=[("Transfer-Encoding", ...)])

tests.servers.h2peer: a scripted HTTP/2 server; a behaviour has a thread for each connection, as a handler above::

    with H2Peer(behaviour | [of conn 0, of conn 1, ..., of all further ones],
                authority=None (plain) | authority (TLS), alpn=("h2",), port=0, receive_buffer=None) as peer: ...
    peer.url .host .port .address .open .peak .faults .closing .refuse()   peer.raw: the RawServer below
    peer.connections: list[H2Conn]   peer.requests: list[H2Request]
    peer.wait_until(lambda peer: ..., timeout=20) .wait_for_connections(n) .wait_for_requests(n)
    http1(handler), by_alpn(h2=behaviour, h1=handler)      # behaviours that speak HTTP/1, or what ALPN agreed on

tests.servers.h2serve: ``serve`` and ``serving(max_concurrent_streams=2, ...)``, a well-behaved server as a behaviour
(/bytes/N /delay?s= /status/N /headers /trailers /early, else the echo); a client that breaks the protocol is a fault.

tests.servers.h2conn, .h2io, .h2recv, .h2send: H2Conn, what a behaviour is given; frames are those of hyperframe::

    conn.handshake(settings={"max_concurrent_streams": 2}, send=True, ack=True)   # preface and both SETTINGS
    conn.read_request() -> H2Request (complete)  .read_requests(n)  .read_head() -> (header only)  .read_body(request)
    conn.read_frame()   conn.expect(RstStreamFrame, lambda frame: ...)           # read before or yet to come, each once
    conn.read_until(event.is_set)   conn.settings_acked()   conn.drain()          # until the client closes
    conn.sync()         # a PING and its answer: whatever the client wrote before is in conn.frames then
    conn.respond(stream_id, status=200, headers=(), body=b"", end=True, flow=True)   conn.send_body(...)   conn.room(id)
    conn.send_headers(id, fields, end_stream=, split=n, raw_block=, end_headers=) .send_continuation(id, block)
        .send_data(id, data, end_stream=, pad=) .send_settings(max_concurrent_streams=0)
        .send_goaway(last, code, debug) .send_rst(id, code) .send_ping(payload, ack=) .send_window_update(id, n)
        .send_push_promise(id, promised, fields) .send_frame(frame)
        .send_raw(raw_frame(kind, flags, id, payload, length=lie))
    conn.answers_pings .acks_settings .gives_credit = False         # else done along the way of every read
    conn.frames .requests .request(id) .client_settings {number: value} .unacked .windows .decoder .encoder .number
    conn.do(conn.send_goaway, 3)        # from the test's thread: done by the owner while it reads; its result
    conn.raw: Conn (accepted_at, peer_closed_at, closed_at, is_open(), alpn; cut(), reset())   conn.close() .hold()
    conn.leave()        # FIN, then drain()    conn.flood(data, times)   # until the client closes; then drain()
    H2Request: stream_id, headers [(name, value)], header(name), method, path, body, trailers, ended, reset (code), at,
        connection, fields (with `indexable`)

A behaviour that returns closes; with bytes of the client unread that is a RST: end with ``drain()`` or ``leave()``.

tests.servers.certs: ``Authority``, for 127.0.0.1, ::1, localhost::

    authority.ca_file .client_file (with key) .client_cert_file .client_key_file   .server_file(kind="good")
    authority.server_context(kind="good", *, alpn=("http/1.1",), client_auth=False)   .client_context(client_cert=False)
    kind: good expired not_yet_valid wrong_host unknown_ca self_signed

tests.servers.nginx: ``Nginx``; any path not listed answers SMALL (34 bytes), so use a prefix of your own::

    nginx.url .tls_url .few_url (closes after 3 requests) .impatient_url (closes after 1 s idle)   nginx.hosts(300)
    /bytes/1k /bytes/1m /bytes/1g   /slow/1m?rate=100k   /echo   /upload (its size)   /put/NAME   /status/204|404|500
    /status/redirect   /stub_status
    nginx.log(prefix, at_least=n) -> [Logged]   nginx.connections(prefix, at_least=n) -> set of numbers
    nginx.open_connections(port=None) -> established now   nginx.reload() .restart() .stop() .start()

tests.servers.http2: nginx, nghttpd and caddy over HTTP/2; fixtures ``nginx2``, ``nghttpd``, ``caddy`` (skipped if
missing) live as long as the session, others are made in a test marked ``@needs_nghttpd``, ``@needs_caddy``::

    .h2_url (prior knowledge)   .h2_tls_url (ALPN)   .h2_port .h2_tls_port   .start() .stop()
    Http2Nginx(folder, authority, max_streams=128, keepalive_requests=100_000_000)    # and all of Nginx
    Nghttpd(folder, authority, max_concurrent_streams=2, early_response=True, ...)    # its own long options
    Caddy(folder, authority)
    nghttpd and caddy: /bytes/1k|64k|1m (pattern) /bytes/1g (zeros)  .root (the folder)  .output()
    /small is SMALL everywhere, /status/404 a 404; nginx and caddy answer SMALL to any path, and HTTP/1.1

tests.servers.blackhole::

    with Blackhole(host="127.0.0.1") as hole:    # or "::1"; connects hang; hole.url .address .host .port, hole.heal()
    with blackholes(20) as holes:          # each at an address of its own
    with refusing_port() as port:          # connects are refused

tests.servers.namespace: a child process with a network of its own, where routes, ports and links may be broken::

    @needs_namespace                       # skipped where it is not allowed
    run_apart("tests.faults.apart", "function")    # that module ends with main(globals()); ip("link", "set", ...)

tests.servers.proxy::

    with ChaosProxy(server.address, up=Faults(), down=Faults(latency=, slice_bytes=, stall_after=, cut_after=,
                    cut_with="fin" | "rst")) as proxy:
    proxy.url .address .counters (connections, bytes_up/down, segments_up/down, stalls, cuts)
    proxy.up = proxy.down = Faults(...)    # for later connections   proxy.cut_all("rst" | "fin")   proxy.refuse()
"""

from __future__ import annotations
