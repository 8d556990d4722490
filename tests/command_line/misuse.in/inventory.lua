here = { { "@local", port = 80 } }
