"""A gRPC client of the real library: `client.py ADDRESS`. A call a line of JSON on stdin, its outcome one on stdout."""

import json
import sys
import time

import grpc

channel = grpc.insecure_channel(sys.argv[1], options=(("grpc.enable_retries", 0),))


def call(asked):
    method = "/lab.Echo/" + asked["method"]
    messages = [message.encode() for message in asked.get("messages", [])]
    options = {
        "timeout": asked.get("timeout", 20),
        "metadata": [tuple(pair) for pair in asked.get("metadata", [])],
    }
    began = time.monotonic()
    outcome = {"messages": [], "times": []}

    def paced():
        for message in messages:
            yield message
            time.sleep(asked.get("pause", 0))

    try:
        kind = asked.get("kind", "unary")
        if kind == "unary":
            answer, running = channel.unary_unary(method).with_call(messages[0], **options)
            answers = [answer]
        elif kind == "client-stream":
            answer, running = channel.stream_unary(method).with_call(paced(), **options)
            answers = [answer]
        else:
            many = channel.unary_stream(method) if kind == "server-stream" else channel.stream_stream(method)
            answers = running = many(messages[0] if kind == "server-stream" else paced(), **options)
        for answer in answers:
            outcome["messages"].append(answer.decode("utf-8", "replace") if len(answer) < 1000 else str(len(answer)))
            outcome["times"].append(time.monotonic() - began)
    except grpc.RpcError as error:
        running = error
    outcome["code"] = running.code().value[0]
    outcome["details"] = running.details()
    outcome["initial"] = [[key, repr(value)] for key, value in running.initial_metadata() or ()]
    outcome["trailing"] = [[key, repr(value)] for key, value in running.trailing_metadata() or ()]
    outcome["seconds"] = time.monotonic() - began
    return outcome


for line in sys.stdin:
    print(json.dumps(call(json.loads(line))), flush=True)
