package main

import (
	_ "embed"
	"fmt"
	"slices"
	"text/template"

	"github.com/montanaflynn/stats"
)

//go:embed report.md.tmpl
var pageText string

// page has the templates of the document. Their data is a report.
var page = template.Must(template.New("report").Funcs(template.FuncMap{
	"median": median,
	"p90":    p90,
}).Parse(pageText))

// report has all measurements.
type report struct {
	Plan     plan
	About    facts
	Results  results
	Ends     map[string]ended     // by contender
	OneShots map[string][]float64 // milliseconds, by contender; "client" is the pair's own client
	Usages   map[string][]usage   // by contender
	Build    []float64            // seconds
	Changes  string

	measured []entry
}

// metric returns one number of a sample.
type metric func(sample) float64

func perSecond(s sample) float64 { return s.perSecond }
func p50(s sample) float64       { return s.p50 }
func p99(s sample) float64       { return s.p99 }
func cpu(s sample) float64       { return s.cpu }
func mallocs(s sample) float64   { return s.mallocs }

// median returns the median of a metric over all rounds of a point.
func (r results) median(at point, m metric) float64 {
	var values []float64
	for _, s := range r[at] {
		values = append(values, m(s))
	}
	return median(values)
}

// ratios returns, for each round, the metric at point a divided by the metric at point b.
func (r results) ratios(a, b point, m metric) []float64 {
	var ratios []float64
	for i := range r[a] {
		ratios = append(ratios, m(r[a][i])/m(r[b][i]))
	}
	return ratios
}

// median returns the median of values. There must be at least one value.
func median(values []float64) float64 {
	m, _ := stats.Median(values)
	return m
}

// p90 returns the 90th percentile of values. There must be at least one value.
func p90(values []float64) float64 {
	p, _ := stats.PercentileNearestRank(values, 90)
	return p
}

// cell has a metric of a point, and the ratio of this metric to the metric of another point. Value
// is the median of the metric over all rounds. Ratio is the median of the ratios of all rounds.
//
// The bench starts all programs several times, and measures some rounds after each start. So each
// start has its own median of the ratios. Low is the lowest of the medians of the starts, and High
// is the highest.
type cell struct{ Value, Ratio, Low, High float64 }

// row has the measurements of one point.
type row struct {
	Name, What                        string
	Callers, Nodes                    int
	PerSecond, P50, P99, CPU, Mallocs cell
	ended
}

// row returns the row of one point (at), with ratios to another point (to).
func (r report) row(at, to point) row {
	c := func(m metric) cell {
		t := r.target("", r.Results.ratios(at, to, m))
		return cell{r.Results.median(at, m), t.Got, t.Low, t.High}
	}
	e := contenders[slices.IndexFunc(contenders, func(e entry) bool { return e.name == at.name })]
	return row{at.name, e.what, at.callers, max(1, e.nodes), c(perSecond), c(p50), c(p99), c(cpu), c(mallocs), r.Ends[at.name]}
}

// Peers returns a row for each peer, measured with the given number of callers. The ratios are to
// limit.
func (r report) Peers(callers int) []row {
	var rows []row
	for _, e := range peers {
		rows = append(rows, r.row(point{e.name, callers}, point{"limit", callers}))
	}
	return rows
}

// Shipped returns a row for each peer with its own default settings. The ratios are to limit with
// its own default settings.
func (r report) Shipped() []row {
	var rows []row
	for _, e := range peers {
		rows = append(rows, r.row(point{shippedName(e.name), 16}, point{shippedName("limit"), 16}))
	}
	return rows
}

// Costs returns the rows of the pair without wrappers, with each wrapper alone, with all wrappers,
// and with all wrappers and metrics. The ratios are to the pair without wrappers.
func (r report) Costs() []row {
	var rows []row
	for _, name := range costs {
		rows = append(rows, r.row(point{name, 16}, point{"basis-bare", 16}))
	}
	return rows
}

// Quiet returns the row of limit without the line that Hello logs, with ratios to limit.
func (r report) Quiet() row {
	return r.row(point{"limit-quiet", 16}, point{"limit", 16})
}

// Growth returns a row for each number of nodes and each peer of growing. The ratios are to limit
// with the same number of connections.
func (r report) Growth() []row {
	var rows []row
	for _, n := range append([]int{1}, nodeCounts...) {
		for _, e := range growing() {
			row := r.row(point{scaledName(e.name, n), 16}, point{scaledName("limit", n), 16})
			row.Name = e.name
			rows = append(rows, row)
		}
	}
	return rows
}

// Only returns a row for each measured point. The ratios are to the first point with the same
// number of callers.
func (r report) Only() []row {
	var rows []row
	for _, callers := range allCounts {
		var first *point
		for _, e := range r.measured {
			if !slices.Contains(e.callers, callers) {
				continue
			}
			at := point{e.name, callers}
			if first == nil {
				first = &at
			}
			rows = append(rows, r.row(at, *first))
		}
	}
	return rows
}

// usageRow has the CPU time per call in one component. Times has the time of each peer, in
// microseconds.
type usageRow struct {
	Component string
	Times     []float64
}

// Components returns a row for each component, and a last row with the sums.
func (r report) Components() []usageRow {
	names := []string{garbage, scheduler, stacks}
	for _, c := range slices.Backward(components) {
		names = append(names, c.name)
	}
	sum := usageRow{"together", make([]float64, len(peers))}
	var rows []usageRow
	for _, name := range names {
		row := usageRow{Component: name}
		for i, e := range peers {
			var times []float64
			for _, u := range r.Usages[e.name] {
				times = append(times, u[name])
			}
			mean, _ := stats.Mean(times) // fails only if times is empty
			row.Times = append(row.Times, mean)
			sum.Times[i] += mean
		}
		rows = append(rows, row)
	}
	return append(rows, sum)
}

// Callers returns the numbers of callers that the peers are measured with.
func (r report) Callers() []int { return allCounts }

// oneShot has the time that a client with one call takes from start to exit, in milliseconds.
type oneShot struct {
	Name        string
	Median, P90 float64
	Runs        int
}

// OneShotRows returns a row for the pair's client as its users run it, and a row for each peer's
// client.
func (r report) OneShotRows() []oneShot {
	names := []string{"client"}
	for _, e := range peers {
		names = append(names, e.name)
	}
	var rows []oneShot
	for _, name := range names {
		took := r.OneShots[name]
		rows = append(rows, oneShot{name, median(took), p90(took), len(took)})
	}
	return rows
}

// target is a goal of the pair, with the measured numbers.
type target struct {
	What      string
	Want      string
	Got       float64 // the median
	Low, High float64 // the lowest and the highest of the medians after each start
	Holds     bool
}

// Targets returns the goals of the pair, and whether the pair reaches each goal. The goals are for
// 16 callers, except the goal for 256 callers and the goal for one call.
func (r report) Targets() []target {
	basis := point{"basis", 16}
	ratio := func(to string, m metric) []float64 { return r.Results.ratios(basis, point{to, 16}, m) }
	atLeast := func(what string, want float64, values []float64) target {
		t := r.target(what, values)
		t.Want, t.Holds = fmt.Sprintf("at least %v", want), t.Got >= want
		return t
	}
	atMost := func(what string, want float64, values []float64) target {
		t := r.target(what, values)
		t.Want, t.Holds = fmt.Sprintf("at most %v", want), t.Got <= want
		return t
	}
	targets := []target{
		atLeast("calls/s, ratio to `limit`", 0.46, ratio("limit", perSecond)),
		atMost("p99, ratio to `limit`", 2, ratio("limit", p99)),
	}
	for _, name := range []string{"gokit", "kratos", "gozero", "grpc-modern"} {
		targets = append(targets,
			atLeast("calls/s, ratio to `"+name+"`", 1, ratio(name, perSecond)),
			atMost("CPU per call, ratio to `"+name+"`", 1, ratio(name, cpu)))
	}
	return append(targets,
		atLeast("calls/s, ratio to `article`", 4, ratio("article", perSecond)),
		atLeast("calls/s with 1,000 nodes, ratio to `limit` with 1,000 connections", 0.45, r.Results.ratios(point{scaledName("basis", 1000), 16}, point{scaledName("limit", 1000), 16}, perSecond)),
		atLeast("calls/s with metrics, ratio to calls/s without", 0.97, r.Results.ratios(point{"basis-metrics", 16}, basis, perSecond)),
		atLeast("calls/s with 256 callers, ratio to 64 callers", 0.85, r.Results.ratios(point{"basis", 256}, point{"basis", 64}, perSecond)),
		atMost("one call of the pair's `client`, from start to exit, in ms", 60, r.OneShots["client"]),
	)
}

// target returns a target that is computed from values. It does not set Want and Holds. The values
// are in the order of the starts, and each start has the same number of values.
func (r report) target(what string, values []float64) target {
	var medians []float64
	for start := range slices.Chunk(values, len(values)/r.Plan.Starts) {
		medians = append(medians, median(start))
	}
	return target{What: what, Got: median(values), Low: slices.Min(medians), High: slices.Max(medians)}
}
