package worker

// signal tells one goroutine that there is something to do. Several signals that it has not
// received yet count as one.
type signal chan struct{}

func newSignal() signal { return make(signal, 1) }

// set signals. It never blocks.
func (s signal) set() {
	select {
	case s <- struct{}{}:
	default:
	}
}
