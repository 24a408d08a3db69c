"""VMs by QEMU: microvm machines, each a copy-on-write resume of a template, with or without KVM."""
