package browser

import (
	"context"
	"fmt"

	"github.com/chromedp/chromedp"
)

// Instance is a node on Consul's page of a service.
type Instance struct {
	ID      string
	Address string   // host:port that callers dial
	Node    string   // name of the agent, which Consul calls a node
	Checks  []string // the page's text for the checks, such as "All node checks passing"
}

// Instances opens Consul's page of service. url is the URL of Consul. Instances waits until the
// page lists n nodes and all checks of these nodes pass. Then it returns the nodes. The page
// updates itself, so Instances does not load it again.
func (b *Browser) Instances(ctx context.Context, url, service string, n int) ([]Instance, error) {
	page := url + "/ui/dc1/services/" + service
	if err := b.do(ctx, "opening "+page, chromedp.Navigate(page)); err != nil {
		return nil, err
	}
	return run(ctx, b, fmt.Sprintf("waiting for %d passing nodes in %s", n, page), until[[]Instance](fmt.Sprintf(`(() => {
	const all = [...document.querySelectorAll(".consul-service-instance-list li:has(.header)")].map(item => ({
		ID: item.querySelector(".header").textContent.trim(),
		Address: item.querySelector(".address dd").textContent.trim(),
		Node: item.querySelector(".node dd").textContent.trim(),
		Checks: [...item.querySelectorAll(".consul-instance-checks dd")].map(check => check.textContent.trim()),
	}));
	return all.length === %d && all.every(i => i.Checks.length === 2 && i.Checks.every(check => check.endsWith("checks passing"))) && all;
})()`, n)))
}
