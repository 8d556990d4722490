print(host.data.prot)
