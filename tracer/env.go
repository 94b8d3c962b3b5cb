package tracer

import (
	"cmp"
	"fmt"
	"log"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"

	jaeger "github.com/uber/jaeger-client-go"
	jaegercfg "github.com/uber/jaeger-client-go/config"
	"github.com/uber/jaeger-client-go/utils"
)

// fromEnv sets cfg from the library's variables. It turns the library's panic on a malformed
// JAEGER_TAGS into an error.
func fromEnv(cfg *jaegercfg.Configuration) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%v; check JAEGER_TAGS, which takes key=value,key=value", p)
		}
	}()
	_, err = cfg.FromEnv()
	// Ignore errors in the variables of the agent's connection. NewTracer does not use these
	// variables, and the library reads them after all other variables. Kubernetes sets
	// JAEGER_AGENT_PORT to tcp://10.0.0.1:6831 in a namespace with a service named jaeger-agent.
	if err != nil && (strings.Contains(err.Error(), "env var JAEGER_AGENT_PORT") ||
		strings.Contains(err.Error(), "env var JAEGER_REPORTER_ATTEMPT_RECONNECT")) {
		err = nil
	}
	if n := cfg.Reporter.QueueSize; err == nil && n > maxQueueSize {
		err = fmt.Errorf("JAEGER_REPORTER_MAX_QUEUE_SIZE is %d; want %d or less", n, maxQueueSize)
	}
	if endpoint := cfg.Reporter.CollectorEndpoint; err == nil && endpoint != "" {
		err = checkURL("JAEGER_ENDPOINT", endpoint)
	}
	return err
}

// checkURL returns an error if the value of a variable is not an HTTP or HTTPS URL. The error does
// not contain the value, because the value may contain a password.
func checkURL(variable, value string) error {
	if u, err := url.Parse(value); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return fmt.Errorf("%s is not a URL; want http://host:port/path", variable)
	}
	return nil
}

// defaultAddress returns DefaultAddress, with the host in JAEGER_AGENT_HOST and the port in
// JAEGER_AGENT_PORT if these are set. It ignores a port that is a URL, because Kubernetes sets such
// values.
func defaultAddress() string {
	host, port := os.Getenv("JAEGER_AGENT_HOST"), os.Getenv("JAEGER_AGENT_PORT")
	if strings.Contains(port, "://") {
		port = ""
	}
	return net.JoinHostPort(
		cmp.Or(strings.Trim(host, "[]"), jaeger.DefaultUDPSpanServerHost),
		cmp.Or(port, strconv.Itoa(jaeger.DefaultUDPSpanServerPort)))
}

// hostOf returns the host of addr, or localhost if the host is empty. addr must be valid for
// CheckAddress.
func hostOf(addr string) string {
	host, _, _ := net.SplitHostPort(addr)
	return cmp.Or(host, jaeger.DefaultUDPSpanServerHost)
}

// logIgnored logs the variables that are set but have no effect.
func logIgnored(cfg *jaegercfg.ReporterConfig, addr string) {
	for _, variable := range []string{
		"JAEGER_RPC_METRICS", "JAEGER_REPORTER_ATTEMPT_RECONNECTING_DISABLED", "JAEGER_REPORTER_ATTEMPT_RECONNECT_INTERVAL",
	} {
		if os.Getenv(variable) != "" {
			log.Printf("jaeger: %s has no effect here", variable)
		}
	}
	if agent := defaultAddress(); cfg.CollectorEndpoint == "" && agent != DefaultAddress && agent != addr {
		log.Printf("jaeger: JAEGER_AGENT_HOST and JAEGER_AGENT_PORT have no effect: spans go to %s, as --jaeger_address or JAEGER_ADDRESS says", addr)
	}
}

// samplingEndpoint returns the URL of the sampling strategies, and whether a variable sets the URL.
// The default URL is on the host of addr.
func samplingEndpoint(addr string) (endpoint string, named bool, err error) {
	if endpoint = os.Getenv("JAEGER_SAMPLING_ENDPOINT"); endpoint != "" {
		return endpoint, true, checkURL("JAEGER_SAMPLING_ENDPOINT", endpoint)
	}
	if endpoint = os.Getenv("JAEGER_SAMPLER_MANAGER_HOST_PORT"); endpoint != "" {
		if !strings.Contains(endpoint, "://") {
			endpoint = "http://" + endpoint + "/sampling"
		}
		return endpoint, true, checkURL("JAEGER_SAMPLER_MANAGER_HOST_PORT", endpoint)
	}
	return "http://" + net.JoinHostPort(hostOf(addr), strconv.Itoa(jaeger.DefaultSamplingServerPort)) + "/sampling", false, nil
}

// packetSize returns the maximum size of a UDP packet to addr, in bytes. The size is the value of
// JAEGER_REPORTER_MAX_PACKET_SIZE, or by default a size at which no router fragments the packets to
// addr.
func packetSize(addr string) (int, error) {
	const variable = "JAEGER_REPORTER_MAX_PACKET_SIZE"
	if text := os.Getenv(variable); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < minPacketSize || n > utils.UDPPacketMaxLength {
			return 0, fmt.Errorf("%s is %q; want %d to %d bytes", variable, text, minPacketSize, utils.UDPPacketMaxLength)
		}
		return n, nil
	}
	host := hostOf(addr)
	if ip := net.ParseIP(host); host == jaeger.DefaultUDPSpanServerHost || ip != nil && ip.IsLoopback() {
		return loopbackPacketSize, nil
	}
	return pathPacketSize, nil
}
