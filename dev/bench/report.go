package main

import (
	_ "embed"
	"fmt"
	"slices"
	"strings"
	"text/template"

	"github.com/montanaflynn/stats"
)

//go:embed report.md.tmpl
var pageText string

// page is the document. It is made of a report.
var page = template.Must(template.New("report").Funcs(template.FuncMap{
	"median": median,
	"p90":    p90,
}).Parse(pageText))

// report is all that was measured.
type report struct {
	Plan    plan
	About   facts
	Results results
	Ends    map[string]ended // by contender
	OneShot []float64        // ms
	Build   []float64        // s
	Changes string
}

// metric is one of a sample's numbers.
type metric func(sample) float64

func perSecond(s sample) float64 { return s.perSecond }
func p50(s sample) float64       { return s.p50 }
func p99(s sample) float64       { return s.p99 }
func cpu(s sample) float64       { return s.cpu }
func mallocs(s sample) float64   { return s.mallocs }

// median returns the median over rounds at a point.
func (r results) median(at point, m metric) float64 {
	var values []float64
	for _, s := range r[at] {
		values = append(values, m(s))
	}
	return median(values)
}

// ratios returns how much the metric at one point is of that at another, in each
// round.
func (r results) ratios(a, b point, m metric) []float64 {
	var ratios []float64
	for i := range r[a] {
		ratios = append(ratios, m(r[a][i])/m(r[b][i]))
	}
	return ratios
}

// median returns that of values, of which there is at least one.
func median(values []float64) float64 {
	m, _ := stats.Median(values)
	return m
}

// p90 returns what nine in ten of values, of which there is at least one, do not
// exceed.
func p90(values []float64) float64 {
	p, _ := stats.PercentileNearestRank(values, 90)
	return p
}

// cell is a number and how much that is of limit's.
type cell struct{ Value, Ratio float64 }

// row is what was measured of a contender at one point.
type row struct {
	Name, What                        string
	Callers                           int
	PerSecond, P50, P99, CPU, Mallocs cell
	ended
}

// row returns that of a point, with the ratios to another.
func (r report) row(at, to point) row {
	c := func(m metric) cell { return cell{r.Results.median(at, m), median(r.Results.ratios(at, to, m))} }
	e := contenders[slices.IndexFunc(contenders, func(e entry) bool { return e.name == at.name })]
	return row{at.name, e.what, at.callers, c(perSecond), c(p50), c(p99), c(cpu), c(mallocs), r.Ends[at.name]}
}

// Peers returns the rows of what is compared with so many callers, beside limit.
func (r report) Peers(callers int) []row {
	var rows []row
	for _, name := range peers {
		rows = append(rows, r.row(point{name, callers}, point{"limit", callers}))
	}
	return rows
}

// Costs returns the rows of each wrapper alone and of all of them, beside the
// pair without any.
func (r report) Costs() []row {
	var rows []row
	for _, name := range costs {
		rows = append(rows, r.row(point{name, 16}, point{"basis-bare", 16}))
	}
	return rows
}

// Quiet returns the row of limit without the line that Hello logs, beside limit.
func (r report) Quiet() row {
	return r.row(point{"limit-quiet", 16}, point{"limit", 16})
}

// Instances returns the rows of several instances, beside one.
func (r report) Instances() []row {
	rows := []row{
		r.row(point{"limit", 16}, point{"limit", 16}),
		r.row(point{"limit-50", 16}, point{"limit", 16}),
	}
	for _, name := range []string{"basis-1", "basis-10", "basis-50"} {
		rows = append(rows, r.row(point{name, 16}, point{"basis-1", 16}))
	}
	return rows
}

// nodesRow is what was measured of one of scales with some nodes, in one way of calling.
type nodesRow struct {
	Callers, Nodes int
	Name           string
	P50, CPU       float64
	ToLimit, ToOne target // of the p50
}

// Nodes returns the rows of scales, beside limit over as many connections and beside
// themselves with one.
func (r report) Nodes() []nodesRow {
	var rows []nodesRow
	for _, callers := range few {
		for _, e := range contenders {
			if e.nodes == 0 || !slices.Contains(e.callers, callers) {
				continue
			}
			name := strings.TrimSuffix(e.name, scaledName("", e.nodes))
			at := point{e.name, callers}
			ratio := func(to string, nodes int) target {
				return r.target("", r.Results.ratios(at, point{scaledName(to, nodes), callers}, p50))
			}
			rows = append(rows, nodesRow{
				callers, e.nodes, name,
				r.Results.median(at, p50), r.Results.median(at, cpu),
				ratio("limit", e.nodes), ratio(name, 1),
			})
		}
	}
	return rows
}

// Scales returns what Nodes is about.
func (r report) Scales() []row {
	var rows []row
	for _, e := range scales {
		rows = append(rows, row{Name: e.name, What: e.what})
	}
	return rows
}

// Callers returns the rows of a contender with ever more callers, beside 64.
func (r report) Callers(name string) []row {
	var rows []row
	for _, callers := range many {
		rows = append(rows, r.row(point{name, callers}, point{name, 64}))
	}
	return rows
}

// Few returns how many callers all contenders were measured with.
func (r report) Few() []int { return few }

// Growing returns what was measured with ever more callers.
func (r report) Growing() []string { return []string{"limit", "basis"} }

// target is what the pair is to reach, and what it does.
type target struct {
	What      string
	Want      string
	Got       float64 // the median
	Low, High float64 // of the medians after each start
	Holds     bool
}

// Targets returns what is to be reached with 16 callers, unless it says otherwise.
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
	return []target{
		atLeast("calls/s, to `limit`", 0.5, ratio("limit", perSecond)),
		atMost("p99, to `limit`", 2, ratio("limit", p99)),
		atLeast("calls/s, to `gokit`", 1, ratio("gokit", perSecond)),
		atMost("CPU per call, to `gokit`", 1, ratio("gokit", cpu)),
		atLeast("calls/s, to `kratos`", 1, ratio("kratos", perSecond)),
		atMost("CPU per call, to `kratos`", 1, ratio("kratos", cpu)),
		atLeast("calls/s, to `article`", 3.5, ratio("article", perSecond)),
		atLeast("calls/s with 50 instances, to 1", 0.9, r.Results.ratios(point{"basis-50", 16}, point{"basis-1", 16}, perSecond)),
		atMost("p50 with 1000 nodes, to `limit` over as many connections", 1.3, r.Results.ratios(point{scaledName("basis", 1000), 16}, point{scaledName("limit", 1000), 16}, p50)),
		atLeast("calls/s with 256 callers, to 64", 0.85, r.Results.ratios(point{"basis", 256}, point{"basis", 64}, perSecond)),
		atMost("one call, start to exit, in ms", 60, r.OneShot),
	}
}

// target returns one of what was measured as often after each start, one after another.
func (r report) target(what string, values []float64) target {
	var medians []float64
	for start := range slices.Chunk(values, len(values)/r.Plan.Starts) {
		medians = append(medians, median(start))
	}
	return target{What: what, Got: median(values), Low: slices.Min(medians), High: slices.Max(medians)}
}
