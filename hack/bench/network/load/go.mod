module weft.dev/bench/load

go 1.26
