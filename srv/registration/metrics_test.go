package registration_test

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/gomicroexample/basis/srv/registration"
)

func TestMetricsOfARegistration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := registration.NewMetrics(func() time.Duration { return 30 * time.Second })
		check := func(registered string) {
			t.Helper()
			require.NoError(t, testutil.CollectAndCompare(m, strings.NewReader(
				"# HELP basis_registered 1 while the node is registered and the last renewal is younger than the TTL, otherwise 0.\n"+
					"# TYPE basis_registered gauge\nbasis_registered "+registered+"\n"), "basis_registered"))
		}
		check("0")
		m.Observe(errors.New("nobody there"))
		check("0")
		m.Observe(nil)
		check("1")
		time.Sleep(29 * time.Second)
		m.Observe(errors.New("nobody there"))
		check("1")
		time.Sleep(time.Second)
		check("0") // the TTL has expired
		m.Observe(nil)
		check("1")
		m.Deregistered()
		check("0")
		require.NoError(t, testutil.CollectAndCompare(m, strings.NewReader(`# HELP basis_registrations_total Attempts to register the node, or to renew its registration, by result: ok or error.
# TYPE basis_registrations_total counter
basis_registrations_total{result="error"} 2
basis_registrations_total{result="ok"} 2
`), "basis_registrations_total"))
	})
}

func TestRegistrationWithoutATTLLasts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := registration.NewMetrics(func() time.Duration { return 0 })
		m.Observe(nil)
		time.Sleep(24 * time.Hour)
		require.NoError(t, testutil.CollectAndCompare(m, strings.NewReader(
			"# HELP basis_registered 1 while the node is registered and the last renewal is younger than the TTL, otherwise 0.\n"+
				"# TYPE basis_registered gauge\nbasis_registered 1\n"), "basis_registered"))
	})
}
