"""The daemon: VMs that are ready before anyone asks, lent to the commands of one user on one machine."""
