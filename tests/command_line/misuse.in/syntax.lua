files.directory { path = "never" }
if true than
end
