// Package bootstrap brings up a whole cluster over ssh, and takes it down again: it checks
// machines, installs the program, starts the nodes in the right order, and reports exactly which
// machine has which problem.
//
// On each machine the work is done by the program itself: it is installed first, and its hidden
// command `provision` (packages protocol and provision) then compares the desired state with what
// is there. So every step can be repeated, and the next run completes one that was interrupted.
package bootstrap
