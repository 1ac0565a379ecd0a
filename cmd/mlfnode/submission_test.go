package main

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"mlfnode/grid"
	"mlfnode/grid/space"
	"mlfnode/node/api"
)

// TestSubmissionRefusesToLoseFields gives every field of a task a value and sends the task to a
// master: all of them arrive. A field that is new in grid.Task belongs into api.TaskSpec, with its
// two conversions.
func TestSubmissionRefusesToLoseFields(t *testing.T) {
	var task grid.Task
	fillFields(reflect.ValueOf(&task).Elem())
	spec := api.Spec(&task)
	b, err := json.Marshal(&spec)
	if err != nil {
		t.Fatal(err)
	}
	var got api.TaskSpec
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	back := got.Task()
	sent, arrived := reflect.ValueOf(task), reflect.ValueOf(back)
	for i := range sent.NumField() {
		if !reflect.DeepEqual(sent.Field(i).Interface(), arrived.Field(i).Interface()) {
			t.Errorf("the field %s of a task does not arrive: got %v, want %v; add it to api.TaskSpec, Spec and Task in node/api/submission.go",
				sent.Type().Field(i).Name, arrived.Field(i), sent.Field(i))
		}
	}
	old, err := json.Marshal(&task) // as records and older masters have it
	if err != nil {
		t.Fatal(err)
	}
	var names, oldNames map[string]any
	if json.Unmarshal(b, &names) != nil || json.Unmarshal(old, &oldNames) != nil {
		t.Fatal("a task is not a JSON object")
	}
	for name := range oldNames {
		if _, ok := names[name]; !ok {
			t.Errorf("the field %q of a task has another name in a submission", name)
		}
	}
}

// fillFields gives every field of v a value.
func fillFields(v reflect.Value) {
	switch v.Interface().(type) {
	case time.Duration:
		v.SetInt(int64(time.Second))
		return
	case space.Value:
		v.Set(reflect.ValueOf(space.Value{Text: "x"}))
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString("x")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(7)
	case reflect.Float64:
		v.SetFloat(0.5)
	case reflect.Struct:
		for i := range v.NumField() {
			fillFields(v.Field(i))
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fillFields(v.Elem())
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fillFields(v.Index(0))
	case reflect.Map:
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fillFields(key)
		fillFields(value)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(key, value)
	default:
		panic("no value for " + v.Type().String())
	}
}
