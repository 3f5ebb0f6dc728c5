// Drives an unmodified whatsmeow: driver WEBSOCKET_URL ROOT_KEY_HEX FOLDER
//
// What is set from outside: the key that whatsmeow trusts (an exported variable) and its HTTP clients, which lead
// what is meant for WhatsApp's host to the simulator and accept its certificate. The credentials live in FOLDER, so
// that another process with the same folder is the same device.
package main

import (
	"context"
	"crypto/tls"
	"database/sql"
	"encoding/hex"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"

	"go.mau.fi/whatsmeow"
	"go.mau.fi/whatsmeow/store/sqlstore"
	waLog "go.mau.fi/whatsmeow/util/log"
	_ "modernc.org/sqlite"
)

// Where whatsmeow connects to.
const whatsApp = "web.whatsapp.com:443"

func main() {
	if err := run(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(websocket, rootKey, folder string) error {
	root, err := hex.DecodeString(rootKey)
	if err != nil || copy(whatsmeow.WACertPubKey[:], root) != len(whatsmeow.WACertPubKey) {
		return fmt.Errorf("the root key %q is not 32 bytes in hex", rootKey)
	}
	simulator, err := url.Parse(websocket)
	if err != nil {
		return err
	}
	database := "file:" + filepath.Join(folder, "store.db") + "?_pragma=foreign_keys(1)&_pragma=busy_timeout(10000)"
	db, err := sql.Open("sqlite", database)
	if err != nil {
		return err
	}
	defer db.Close()
	// Writers of one file wait for each other here rather than in the database.
	db.SetMaxOpenConns(1)
	ctx := context.Background()
	container := sqlstore.NewWithDB(db, "sqlite3", logger("store"))
	if err := container.Upgrade(ctx); err != nil {
		return err
	}
	device, err := container.GetFirstDevice(ctx)
	if err != nil {
		return err
	}
	client := whatsmeow.NewClient(device, logger("client"))
	through := simulated(simulator.Host)
	client.SetWebsocketHTTPClient(through)
	client.SetPreLoginHTTPClient(through)
	client.SetMediaHTTPClient(through)
	driver := newDriver(client, through)
	client.AddEventHandler(driver.handle)
	return serve(driver.run)
}

// logger writes to standard error, because standard output belongs to the line protocol.
func logger(module string) waLog.Logger {
	level := os.Getenv("INTEROP_LOG")
	if level == "" {
		level = "warn"
	}
	return &stderrLog{module: module, least: levels[level]}
}

// simulated is an HTTP client for which WhatsApp's host is the simulator. Media have hosts of their own.
func simulated(host string) *http.Client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.Proxy = nil
	transport.TLSClientConfig = &tls.Config{InsecureSkipVerify: true}
	transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		if address == whatsApp {
			address = host
		}
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}
	return &http.Client{Transport: transport}
}
