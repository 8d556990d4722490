server.shell { name = "Undo it", commands = { "true" } }
files.line { name = "Keep two", path = "notes", line = "two" }
