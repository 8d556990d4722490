local page = files.directory { path = "never" }
if page.did_change then
  server.shell { commands = { "true" } }
end
