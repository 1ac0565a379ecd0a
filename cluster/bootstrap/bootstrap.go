// Package bootstrap brings up a whole cluster over ssh, and takes it down again: it checks machines, puts the program there, has
// nodes started in the right order, and says exactly which machine has which problem.
//
// On each machine the work is done by the program itself: it is shipped first, and its hidden command `provision` (wire.go) then
// compares what is wanted with what is there. So every step can be done again, and one that was interrupted anywhere is
// finished by the next run.
package bootstrap
