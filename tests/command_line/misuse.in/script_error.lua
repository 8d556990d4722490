local function port(settings)
  return settings.port + 1
end
files.directory { path = "never" }
port({})
