package door

import (
	"fmt"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// A permit says who may do something at all. Whether it may be done to this
// very thing is for the dictionary.
type permit func(serval.Principal) error

func anyone(serval.Principal) error { return nil }

func person(who serval.Principal) error {
	if who.Kind != serval.KindPerson {
		return serval.Refuse(serval.Unauthenticated, "You are not signed in.")
	}
	return nil
}

func admin(who serval.Principal) error {
	if err := person(who); err != nil {
		return err
	}
	if !who.Admin {
		return serval.Refuse(serval.Denied, "This is for admins.")
	}
	return nil
}

func auditor(who serval.Principal) error {
	if err := person(who); err != nil {
		return err
	}
	if !who.Auditor && !who.Admin {
		return serval.Refuse(serval.Denied, "This is for auditors.")
	}
	return nil
}

func worker(who serval.Principal) error {
	if who.Kind != serval.KindWorker {
		return serval.Refuse(serval.Unauthenticated, "This is for workers; no valid worker token was given.")
	}
	return nil
}

func system(who serval.Principal) error {
	if who.Kind != serval.KindSystem {
		return serval.Refuse(serval.Denied, "This happens by itself.")
	}
	return nil
}

// permits says, for every action that somebody begins, who may begin it. It is
// read only; an action that is not in it may be begun by nobody.
var permits = map[serval.Action]permit{
	serval.LoginStart:  anyone,
	serval.LoginCreate: anyone,
	serval.LoginRead:   anyone,
	serval.LoginList:   person,
	serval.LoginEnd:    person,

	serval.LoginRefresh: person,

	serval.ClientStart:   anyone,
	serval.ClientRead:    person,
	serval.ClientApprove: person,
	serval.ClientDeny:    person,

	serval.RoleRead:        person,
	serval.RequestRead:     person,
	serval.RequestCreate:   person,
	serval.RequestDecide:   person,
	serval.ExtensionCreate: person,
	serval.RequestShorten:  person,
	serval.RequestCancel:   person,
	serval.RequestDone:     person,
	serval.RequestRevoke:   person,
	serval.RequestExpire:   system,
	serval.RoleChange:      system,
	serval.RequestFail:     system,

	serval.WriteClaim:   person,
	serval.PersonRead:   admin,
	serval.PersonRelink: admin,

	serval.SessionRead:  person,
	serval.SessionOpen:  person,
	serval.SessionIssue: person,
	serval.SessionFail:  person,
	serval.SessionDrop:  person,
	serval.SessionClose: system,

	serval.SessionLink:   person,
	serval.SessionSignIn: person,

	serval.AccountRead:    admin,
	serval.AccountDeclare: system,
	serval.AccountRemove:  system,
	serval.PolicyDeclare:  system,
	serval.ConfigAppoint:  system,
	serval.ConfigReload:   system,
	serval.PolicyRead:     admin,
	serval.PolicyCreate:   admin,
	serval.PolicyChange:   admin,
	serval.PolicyDelete:   admin,
	serval.AccessExplain:  admin,
	serval.AccountConnect: admin,
	serval.AccountChange:  admin,

	serval.AccountDisconnect: admin,

	serval.RemovalConfirm: admin,
	serval.SyncRequest:    admin,

	serval.UpstreamRead:    worker,
	serval.WorkerIdentify:  worker,
	serval.SyncOpen:        worker,
	serval.InventoryAccept: worker,
	serval.DeltaAccept:     worker,

	serval.RosterRead:   system,
	serval.TrustExplain: admin,
	serval.FindingRead:  auditor,

	serval.RunRead:    admin,
	serval.RunStart:   admin,
	serval.RunDecide:  admin,
	serval.RunExpire:  system,
	serval.TaskClaim:  worker,
	serval.TaskFinish: worker,
	serval.TaskLapse:  system,

	serval.NoticeRead:  admin,
	serval.NoticeRetry: admin,
	serval.NoticeSend:  system,

	serval.StoreRestore: system,

	serval.AuditRead:   auditor,
	serval.AuditExport: auditor,
	serval.ReportRead:  auditor,
	serval.EdgeRefuse:  person,
}

// authorize refuses who may not begin what. Every act and view asks it, and
// nothing else does.
func authorize(who serval.Principal, what serval.Action) error {
	allowed, known := permits[what]
	if !known {
		return fmt.Errorf("control: nobody may begin %q", what)
	}
	return allowed(who)
}
