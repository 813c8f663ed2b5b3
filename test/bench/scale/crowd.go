package main

import "context"

func crowd(context.Context, options) (string, error) { return "", nil }
