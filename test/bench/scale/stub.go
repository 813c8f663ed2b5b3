package main

import "context"

func engine(context.Context, options) (string, error)  { return "", nil }
func oneNode(context.Context, options) (string, error) { return "", nil }
func crowd(context.Context, options) (string, error)   { return "", nil }
