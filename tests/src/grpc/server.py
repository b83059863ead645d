"""A gRPC server of the real library: `server.py ADDRESS`. Messages are bytes; the first words of one say what to do."""

import sys
import time
from concurrent import futures

import grpc


def unary(request, context):
    words = request.decode("utf-8", "replace").split(" ")
    sent = dict(context.invocation_metadata())
    if words[0] == "sleep":
        time.sleep(float(words[1]))
    context.send_initial_metadata((("x-seen", sent.get("x-asked", "-")), ("x-data-bin", b"\x00\xff")))
    context.set_trailing_metadata((("x-trailing", "yes"), ("x-te", "seen")))
    if words[0] == "fail":
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "bad é %")
    if words[0] == "left":
        left = context.time_remaining()
        return ("none" if left is None or left > 1e6 else "%.1f" % left).encode()
    if words[0] == "big":
        return b"x" * int(words[1])
    return request


def server_stream(request, context):
    n, pause = request.decode().split(" ")
    for i in range(int(n)):
        yield b"%d" % i
        time.sleep(float(pause))


def client_stream(requests, context):
    return b"%d" % sum(len(request) for request in requests)


def bidi(requests, context):
    for request in requests:
        yield request.upper()


serving = {"": True, "lab.Echo": True}


def check(request, context):
    """grpc.health.v1.Health/Check, by hand: field 1 of both messages."""
    service = request[2:].decode() if request else ""
    if service not in serving:
        context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
    return b"\x08\x01" if serving[service] else b"\x08\x02"


def set_serving(request, context):
    service, state = request.decode().split("=")
    serving[service] = state == "up"
    return b""


methods = {
    "Unary": grpc.unary_unary_rpc_method_handler(unary),
    "ServerStream": grpc.unary_stream_rpc_method_handler(server_stream),
    "ClientStream": grpc.stream_unary_rpc_method_handler(client_stream),
    "Bidi": grpc.stream_stream_rpc_method_handler(bidi),
    "SetServing": grpc.unary_unary_rpc_method_handler(set_serving),
}
server = grpc.server(futures.ThreadPoolExecutor(32), options=(("grpc.so_reuseport", 0),))
server.add_generic_rpc_handlers((
    grpc.method_handlers_generic_handler("lab.Echo", methods),
    grpc.method_handlers_generic_handler(
        "grpc.health.v1.Health", {"Check": grpc.unary_unary_rpc_method_handler(check)}
    ),
))
if server.add_insecure_port(sys.argv[1]) == 0:
    sys.exit("cannot listen on " + sys.argv[1])
server.start()
sys.stdin.read()
server.stop(0)
