local conf = files.put { name = "Configure", content = "port = 80\n", dest = "app.conf" }
server.shell { name = "Register", commands = { "echo registered >> register" } }
server.shell { name = "Check", commands = { host:get("ready") and "true" or "echo 'the app is not ready' >&2; exit 3" } }
server.shell { name = "Reload", commands = { "cat register" }, _if = conf.did_change }
