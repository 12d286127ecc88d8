module burrowpeer

go 1.16

require golang.org/x/build v0.0.0-20211108163316-3ce30f35b9aa
