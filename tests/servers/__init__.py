"""The peers that tests talk to; all on loopback, all gone when they are left.

Guards around every test (tests/conftest.py, nothing to ask for)::

    no_leaks          threads, sockets, pipes, eventfds, epolls, actors, dispatchers are back within 5 s
    loopback_only     no connect or look-up leaves the machine (names under .invalid may be looked up)
    switch_interval   a test marked `concurrency` runs twice: default interval, and 1e-6 s

Fixtures of the session: ``authority: Authority`` and ``nginx: Nginx`` (marks the test `nginx`; skipped if missing).

tests.waiting: ``eventually(predicate, timeout=5.0) -> the first truthy answer``, else AssertionError.

tests.servers.raw: a scripted server; a handler has a thread for each connection::

    with RawServer(handler | [handler of conn 0, of conn 1, ..., of all further ones],
                   ssl_context=None, host="127.0.0.1" | "::1", port=0, receive_buffer=None) as server: ...
    server.url .host .port .address          server.connections: list[Conn]   server.requests: list[RawRequest]
    server.open (now)  .peak (at any accept) server.faults   server.closing: Event (wait on it, never sleep)
    server.wait_for_connections(n) .wait_for_requests(n) .wait_until(lambda server: ..., timeout=5.0)
    server.refuse()                          # further connects are refused; RawServer(..., port=server.port) comes back
    always(answer), script(*answers)         # handlers; an answer is bytes or a function of the RawRequest

A handler that returns closes its connection. A client that goes away ends it without fault; whatever else it raises
(assertions, BadRequest) is raised by ``__exit__``.

tests.servers.connection, .endpoint: Conn, what a handler is given::

    conn.read_request() -> RawRequest   conn.read_head() + conn.read_body(request)   conn.recv(size) -> bytes
    conn.send(data)   conn.send_slowly(data, size=1, delay=0.0)
    conn.wait_closed(timeout=5.0) -> bool   conn.hold()           # until the client closes; reads nothing
    conn.close()  FIN, after close_notify    conn.shutdown_write() the same, and reads on
    conn.cut()    FIN without close_notify   conn.reset()          RST     (these two from any thread)
    conn.start_tls(context) -> bool   conn.alpn   conn.server_name   conn.handshake_error
    conn.number .requests .received (bytes) .accepted_at .peer_closed_at .closed_at (monotonic) .is_open()

tests.servers.wire::

    RawRequest: method, target, version, headers [(name, value)], head, body, trailers, connection, at; header(name)
    respond(body=b"", status=200, headers=(), *, reason=None, version="HTTP/1.1") -> bytes
    chunked(body, size=1024, trailers=()) -> bytes     # for respond(chunked(...), headers=[("Transfer-Encoding", ...)])

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
