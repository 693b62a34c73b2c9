package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/awstest"
	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// BenchmarkScan runs the program against an account of 1,000 roles, 100 of them
// tagged, with 2 inline and 3 managed policies each, where every call takes 40
// ms. It reports the calls over those that cannot be saved, the time over what
// those calls take 16 at a time, and the program's peak memory.
func BenchmarkScan(b *testing.B) {
	const (
		roles, tagged   = 1000, 100
		latency         = 40 * time.Millisecond
		inFlight        = 16
		inline, managed = 2, 3
	)
	program := filepath.Join(b.TempDir(), "serval-worker")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		b.Fatalf("building the program: %v\n%s", err, out)
	}

	cloud := awstest.New(awstest.Options{})
	hub := cloud.AddAccount("999988887777", "hub")
	keys := hub.PutUser("worker", `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"sts:*","Resource":"*"}}`)
	account := cloud.AddAccount("111122223333", "prod")
	var pool []string
	for i := range 60 {
		pool = append(pool, cloud.PutAWSPolicy(fmt.Sprintf("Managed%02d", i), document("s3:Get*", i)))
	}
	for i := range 60 {
		pool = append(pool, account.PutPolicy(awstest.Policy{Name: fmt.Sprintf("local-%02d", i), Document: document("sqs:Send*", i)}))
	}
	actions, err := json.Marshal(serval.IngestionActions())
	if err != nil {
		b.Fatal(err)
	}
	account.PutRole(awstest.Role{
		Name:   "serval-ingestion",
		Trust:  `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::999988887777:root"},"Action":"sts:AssumeRole","Condition":{"StringEquals":{"sts:ExternalId":"external-id"}}}}`,
		Inline: map[string]string{"read": fmt.Sprintf(`{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":%s,"Resource":"*"}}`, actions)},
	})
	random := rand.New(rand.NewPCG(1, 2))
	used := map[string]bool{}
	for i := range roles - 1 {
		r := awstest.Role{Name: fmt.Sprintf("role-%04d", i)}
		if i < tagged {
			r.Tags = map[string]string{serval.TagKey: ""}
			r.Inline = map[string]string{}
			for n := range inline {
				r.Inline[fmt.Sprintf("inline-%d", n)] = document("dynamodb:Query", i)
			}
			for _, n := range random.Perm(len(pool))[:managed] {
				r.Attached = append(r.Attached, pool[n])
				used[pool[n]] = true
			}
		}
		account.PutRole(r)
	}
	url := cloud.Start(b)
	cloud.SetLatency(func() time.Duration { return latency })
	// AssumeRole, the page, a GetRole each, two lists for each tagged one, each
	// inline policy, and two calls for each managed policy there is.
	floor := 1 + 1 + roles + 2*tagged + inline*tagged + 2*len(used)

	for b.Loop() {
		cloud.ResetCalls()
		c := exec.Command(program, "scan", "--account", account.ID(), "--role-arn", account.RoleARN("serval-ingestion"), "-o", "json")
		c.Env = append(os.Environ(), "SERVAL_EXTERNAL_ID=external-id", "SERVAL_STS_ENDPOINT="+url, "SERVAL_IAM_ENDPOINT="+url,
			"AWS_ACCESS_KEY_ID="+keys.AccessKeyID, "AWS_SECRET_ACCESS_KEY="+keys.SecretAccessKey, "AWS_EC2_METADATA_DISABLED=true")
		start := time.Now()
		out, err := c.Output()
		took := time.Since(start)
		if err != nil {
			b.Fatalf("scan: %v", err)
		}
		var inv serval.Inventory
		if err := json.Unmarshal(out, &inv); err != nil {
			b.Fatal(err)
		}
		if !inv.Complete || len(inv.Roles) != tagged {
			b.Fatalf("complete %v with %d roles, want all of %d", inv.Complete, len(inv.Roles), tagged)
		}
		calls := cloud.CountCalls("")
		b.ReportMetric(float64(calls), "calls")
		b.ReportMetric(float64(calls)/float64(floor), "calls/floor")
		b.ReportMetric(took.Seconds(), "s/scan")
		b.ReportMetric(took.Seconds()/(float64(floor)*latency.Seconds()/inFlight), "time/floor")
		if usage, ok := c.ProcessState.SysUsage().(*syscall.Rusage); ok {
			unit := 1.0 / 1024 // KiB
			if runtime.GOOS == "darwin" {
				unit /= 1024 // bytes
			}
			b.ReportMetric(float64(usage.Maxrss)*unit, "MiB-peak")
		}
	}
}

// document returns a policy that allows an action on one of many resources.
func document(action string, n int) string {
	return fmt.Sprintf(`{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":%q,"Resource":"arn:aws:s3:::bucket-%04d/*"}}`, action, n)
}
