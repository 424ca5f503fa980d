"""A gRPC server or client of the test, by grpcio, as `serve` and as `call ADDRESS AUTHORITY ROOTS TOKEN`.

It knows no .proto: messages are bytes.
"""

import sys
from concurrent import futures

import grpc


def echo(request, context):
    context.set_trailing_metadata((("x-told", dict(context.invocation_metadata()).get("x-asked", "")),))
    if request == b"fail":
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "as was asked")
    return request


def count(request, context):
    for n in range(int(request)):
        yield str(n).encode()


def join(requests, context):
    return b",".join(requests)


class Service(grpc.GenericRpcHandler):
    def service(self, call):
        return {
            "/test/Echo": grpc.unary_unary_rpc_method_handler(echo),
            "/test/Count": grpc.unary_stream_rpc_method_handler(count),
            "/test/Join": grpc.stream_unary_rpc_method_handler(join),
        }.get(call.method)


def serve():
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
    server.add_generic_rpc_handlers((Service(),))
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    server.start()
    server.wait_for_termination()


def call(address, authority, roots, token):
    with open(roots, "rb") as file:
        credentials = grpc.ssl_channel_credentials(file.read())
    metadata = (("authorization", f"Bearer {token}"), ("x-asked", "hello"))
    # Its resolver does not know that names under localhost are this host.
    names = (("grpc.default_authority", authority), ("grpc.ssl_target_name_override", authority.split(":")[0]))
    with grpc.secure_channel(address, credentials, names) as channel:
        answer, done = channel.unary_unary("/test/Echo").with_call(b"one", metadata=metadata, timeout=60)
        print("echo", answer.decode(), dict(done.trailing_metadata()).get("x-told"))
        try:
            channel.unary_unary("/test/Echo")(b"fail", metadata=metadata, timeout=60)
        except grpc.RpcError as error:
            print("failed", error.code().name, error.details())
        numbers = channel.unary_stream("/test/Count")(b"5000", metadata=metadata, timeout=60)
        print("count", sum(int(number) for number in numbers))
        large = [b"x" * 100_000] * 30
        print("join", len(channel.stream_unary("/test/Join")(iter(large), metadata=metadata, timeout=60)))
        try:
            channel.unary_unary("/test/Echo")(b"one", timeout=60)
        except grpc.RpcError as error:
            print("refused", error.code().name)


if sys.argv[1] == "serve":
    serve()
else:
    call(*sys.argv[2:])
