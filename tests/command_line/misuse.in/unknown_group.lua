if host.groups.her then print("x") end
