package trust

func (p *Policy) mend(c Context, steps *budget) *Mend { return nil }
func (q *question) isOurs(s *statement) bool          { return false }
