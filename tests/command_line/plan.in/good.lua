local notes = files.line { name = "Greet", path = "notes", line = "good day" }
server.shell { name = "Tell", commands = { "true" }, _if = notes.did_change }
