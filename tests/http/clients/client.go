// Two requests of net/http's client, one after the other: prints what each came to.
//
//	client URL [FILE [expect]]
//
// With a file they post it, and may ask first whether they should.
package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"os"
)

func request() (*http.Request, error) {
	if len(os.Args) == 2 {
		return http.NewRequest("GET", os.Args[1], nil)
	}
	body, err := os.ReadFile(os.Args[2])
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequest("POST", os.Args[1], bytes.NewReader(body))
	if err == nil && len(os.Args) > 3 {
		request.Header.Set("Expect", "100-continue")
	}
	return request, err
}

func ask() string {
	request, err := request()
	if err != nil {
		return err.Error()
	}
	response, err := http.DefaultClient.Do(request)
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
	json.NewEncoder(os.Stdout).Encode([]string{ask(), ask()})
}
