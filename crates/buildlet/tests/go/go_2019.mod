module burrowpeer

go 1.16

require golang.org/x/build v0.0.0-20190111050920-041ab4dc3f9d
