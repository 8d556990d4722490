files.line { name = "Greet", path = "notes", line = "hello" }
server.shell { name = "Undo it", commands = { "sed -i /hello/d notes" } }
files.line { name = "Keep two", path = "notes", line = "two" }
