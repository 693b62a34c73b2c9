package trust

import "sync"

// maxParsed is how many trust policies are kept parsed.
const maxParsed = 4096

// Parsed keeps trust policies that were parsed, by the digests of their texts. Its
// zero value keeps none yet; many goroutines may use it at once.
type Parsed struct {
	mu       sync.Mutex
	policies map[string]*Policy
}

// Get returns the policy with the digest, parsing it at the first time.
func (p *Parsed) Get(digest string, parse func() (*Policy, error)) (*Policy, error) {
	p.mu.Lock()
	policy := p.policies[digest]
	p.mu.Unlock()
	if policy != nil {
		return policy, nil
	}
	policy, err := parse()
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.policies == nil || len(p.policies) >= maxParsed {
		p.policies = make(map[string]*Policy) // begun anew: what is used comes back
	}
	p.policies[digest] = policy
	return policy, nil
}
