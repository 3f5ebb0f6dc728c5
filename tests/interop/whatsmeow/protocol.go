package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"sync"
)

// The line protocol of the drivers: commands come as JSON lines on standard input, answers and events go as JSON
// lines to standard output. Standard error is the log. The README of the folder above lists commands and events.

// fields of an event or an answer.
type fields map[string]any

// command is a line of standard input.
type command struct {
	ID      int      `json:"id"`
	Run     string   `json:"run"`
	CodeFor string   `json:"code_for"`
	To      string   `json:"to"`
	Text    string   `json:"text"`
	Caption string   `json:"caption"`
	Target  string   `json:"target"`
	Subject string   `json:"subject"`
	Members []string `json:"members"`
	Base64  []byte   `json:"base64"`
}

var output sync.Mutex

func write(line fields) {
	bytes, err := json.Marshal(line)
	if err != nil {
		panic(err)
	}
	output.Lock()
	defer output.Unlock()
	fmt.Println(string(bytes))
}

// emit tells the test what has happened.
func emit(event string, about fields) {
	about["event"] = event
	write(about)
}

// serve runs commands until standard input ends. One at a time, in their order.
func serve(run func(command) (fields, error)) error {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		var asked command
		if err := json.Unmarshal(lines.Bytes(), &asked); err != nil {
			return err
		}
		answer, err := run(asked)
		if answer == nil {
			answer = fields{}
		}
		if err != nil {
			answer["error"] = err.Error()
		}
		answer["answer"] = asked.ID
		write(answer)
	}
	return lines.Err()
}
