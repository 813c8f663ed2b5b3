// Package service decides what is to be done with services: which ones are refused, and what a node's kernel is to do with
// each frontend. It is pure: the same services give the same rows, on every node and in any order.
package service
