server.shell { name = "Note", commands = "echo noted >> log" }
