here = { "@local",
         "@local" }
