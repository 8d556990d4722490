"""A server to be measured: answers each number with the number times its seed, until it is told to end.

    server.py PORT SEED RESULT

It says what it does line by line. When it is told to end (SIGTERM) it writes how many requests it has served to RESULT.
"""

import select
import signal
import socket
import sys

port, seed, result = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
served = 0


def end(signum, frame):
    with open(result, "w") as file:
        file.write("port,seed,served\n%d,%d,%d\n" % (port, seed, served))
    print("served %d requests" % served, flush=True)
    sys.exit(0)


signal.signal(signal.SIGTERM, end)
listener = socket.create_server(("", port))
print("listening on port %d with seed %d" % (port, seed), flush=True)
waiting = {listener: b""}
while True:
    for ready in select.select(list(waiting), [], [])[0]:
        if ready is listener:
            connection, address = listener.accept()
            print("asked by %s" % address[0], flush=True)
            waiting[connection] = b""
            continue
        received = ready.recv(4096)
        *lines, waiting[ready] = (waiting[ready] + received).split(b"\n")
        for line in lines:
            ready.sendall(b"%d\n" % (int(line) * seed))
            served += 1
        if not received:
            del waiting[ready]
            ready.close()
