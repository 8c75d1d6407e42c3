"""A real Kubernetes on this machine, for tests and for the demo: no docker, no mock.

`program` holds the Go module that makes one program of etcd, API server, controllers, scheduler and kubelet;
`control_plane` runs it; `kwok` adds nodes on which nothing runs, for scale; `node` adds a real one, with containers;
`fixtures` are what tests take. `python -m tests.cluster` does the same by hand.
"""
