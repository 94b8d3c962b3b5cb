package main

import (
	"log"
	"os"
	"os/signal"
	"runtime/pprof"
	"syscall"
)

// Built into srv and client for "make pgo" alone: profiles the CPU from the start
// until SIGHUP, and then ends the program as SIGTERM does.
func init() {
	f, err := os.Create(os.Getenv("BASIS_CPU_PROFILE"))
	if err != nil {
		log.Fatal(err)
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		log.Fatal(err)
	}
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	go func() {
		<-hup
		pprof.StopCPUProfile()
		if err := f.Close(); err != nil {
			log.Fatal(err)
		}
		self, err := os.FindProcess(os.Getpid())
		if err != nil {
			log.Fatal(err)
		}
		if err := self.Signal(syscall.SIGTERM); err != nil {
			log.Fatal(err)
		}
	}()
}
