"""A load generator: asks a server for some seconds and measures how long each answer takes.

    generator.py HOST PORT SEED SECONDS RESULT

It waits for the server, checks every answer against the server's seed, and writes one line for each request to RESULT.
"""

import random
import socket
import sys
import time

host, port, seed, seconds, result = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]), sys.argv[5]
numbers = random.Random(seed)


def connect():
    give_up = time.monotonic() + 30
    while True:
        try:
            return socket.create_connection((host, port), timeout=30)
        except OSError:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.1)


count = 0
began = time.monotonic()
with connect() as connection, open(result, "w") as file:
    print("connected to %s port %d" % (host, port), flush=True)
    answers = connection.makefile("r")
    file.write("request,number,answer,microseconds\n")
    while count == 0 or time.monotonic() - began < seconds:
        number = numbers.randrange(1000000)
        asked = time.monotonic()
        connection.sendall(b"%d\n" % number)
        answer = int(answers.readline())
        took = time.monotonic() - asked
        if answer != number * seed:
            sys.exit("asked for %d times %d and was told %d" % (number, seed, answer))
        count += 1
        file.write("%d,%d,%d,%d\n" % (count, number, answer, took * 1e6))
        time.sleep(0.05)
print("%d answers, all right" % count, flush=True)
