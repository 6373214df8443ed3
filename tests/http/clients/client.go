// Two requests of net/http's client, one after the other: prints what each came to.
//
//	client URL
package main

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
)

func ask(url string) string {
	response, err := http.Get(url)
	if err != nil {
		return err.Error()
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err.Error()
	}
	return response.Status[:3] + " " + string(body)
}

func main() {
	json.NewEncoder(os.Stdout).Encode([]string{ask(os.Args[1]), ask(os.Args[1])})
}
