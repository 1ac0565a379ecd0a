package shell

import (
	"context"
	"sync"

	"golang.org/x/crypto/ssh"

	"mlfnode/grid/lazyregexp"
)

// passwordTries is how often OpenSSH asks for a password.
const passwordTries = 3

// login is who is let in where. The host key is part of it: what was typed for one machine goes to no other that took its address.
type login struct{ user, machine, key string }

// wallet keeps the passwords that were typed, until the Dialer is gone: a person is asked once for each login, however often it is
// connected to.
type wallet struct {
	mu   sync.Mutex
	each map[login]*password
}

// at gives the password of a login.
func (w *wallet) at(l login) *password {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.each[l] == nil {
		w.each[l] = &password{turn: make(chan struct{}, 1)}
	}
	return w.each[l]
}

// password is the last answer for a login. Answers are numbered, so that one who is refused the first does not take the second,
// which another has asked for meanwhile, for refused.
type password struct {
	turn chan struct{} // held by whoever asks

	mu      sync.Mutex
	answer  string
	number  int // of answer, 0 for none
	refused int // the last answer that was
}

// get gives the answer that is there, or else asks for one. again tells that the last one was refused.
func (p *password) get(ctx context.Context, ask func(again bool) (string, error)) (answer string, number int, err error) {
	select {
	case p.turn <- struct{}{}:
		defer func() { <-p.turn }()
	case <-ctx.Done():
		return "", 0, context.Cause(ctx)
	}
	answer, number, usable := p.last()
	if usable {
		return answer, number, nil
	}
	if answer, err = ask(number > 0); err != nil {
		return "", 0, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answer, p.number = answer, number+1
	return p.answer, p.number, nil
}

func (p *password) last() (answer string, number int, usable bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.answer, p.number, p.number > p.refused
}

func (p *password) refuse(number int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refused = max(p.refused, number)
}

// secret is the password of the login that the handshake is for.
func (a *attempt) secret() *password {
	return a.d.wallet.at(login{user: a.route.user, machine: a.route.knownAs() + " " + a.route.address(), key: a.hostKey})
}

// typed gives the person's password for the machine that the handshake is with.
func (a *attempt) typed(question string) (answer string, err error) {
	err = a.slowly(func() error {
		answer, a.sent, err = a.secret().get(a.ctx, func(again bool) (string, error) {
			if again {
				question = "that was refused, " + question
			}
			return a.ask(question)
		})
		a.asked = true
		return err
	})
	return answer, err
}

// ask asks the person.
func (a *attempt) ask(question string) (string, error) {
	a.asked = true
	answer, err := a.d.options.Prompt.Secret(a.ctx, question)
	if err != nil {
		a.tries = passwordTries // who does not answer is not asked again
	}
	return string(answer), err
}

// judged notes that the machine refused what was sent last, if that was a password.
func (a *attempt) judged() {
	if a.sent > 0 {
		a.secret().refuse(a.sent)
		a.sent = 0
	}
}

// password gives the password of the user.
func (a *attempt) password() (string, error) {
	return a.typed("password of " + a.route.user + " on " + a.route.String())
}

// passwordQuestion is how PAM and sshd ask for what does not change from one login to the next.
var passwordQuestion = lazyregexp.New(`(?i)^(\(\S+\) )?password( for \S+)?:\s*$`)

// answer passes on the questions of the machine.
func (a *attempt) answer(_, instruction string, questions []string, echos []bool) ([]string, error) {
	answers := make([]string, 0, len(questions))
	for i, q := range questions {
		question := a.route.user + " on " + a.route.String() + ", " + instruction + q
		var answer string
		var err error
		if len(questions) == 1 && !echos[i] && passwordQuestion.Get().MatchString(q) {
			answer, err = a.typed(question)
		} else {
			err = a.slowly(func() (err error) {
				answer, err = a.ask(question)
				return err
			})
		}
		if err != nil {
			return nil, err
		}
		answers = append(answers, answer)
	}
	return answers, nil
}

// byPerson gives the method that a person has answers for, nil when there were tries enough.
func (a *attempt) byPerson(method string) ssh.AuthMethod {
	if a.d.options.Prompt == nil || a.tries >= passwordTries {
		return nil
	}
	a.tries++
	if method == "password" {
		return ssh.PasswordCallback(a.password)
	}
	return ssh.KeyboardInteractive(a.answer)
}
