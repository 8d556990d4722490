if host.name != "x" then print("y") end
