// Package proto is the Basis service and its messages: basis.proto, and the code that
// "make proto" generates from it.
package proto
